# One image for every process; the command says which. Secrets come from the environment of each container, never from here.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

RUN groupadd --gid 10001 staking && useradd --uid 10001 --gid staking --no-create-home --shell /usr/sbin/nologin staking

WORKDIR /app

# The locked third-party packages first: they change less often than the source. Those of production alone: the container
# that holds keys has no test runner, no database and no desk tool in it.
COPY requirements.lock ./
RUN pip install --require-hashes -r requirements.lock

# The source tree is what runs: migrations and `.env` files are found beside their modules.
COPY . .
ENV PYTHONPATH=/app

USER staking

CMD ["python", "-c", "raise SystemExit('Say which process to run; see docker-compose.yml.')"]
