-- Run once by the Postgres image, on an empty data directory: one role and one database per service, and one reader for
-- the metrics. Passwords come from the container's environment. Needs psql 14 or newer (\getenv).

\set ON_ERROR_STOP on

\getenv ledger_password LEDGER_DB_PASSWORD
\getenv protocols_password PROTOCOLS_DB_PASSWORD
\getenv rewards_password REWARDS_DB_PASSWORD
\getenv pool_password POOL_DB_PASSWORD
\getenv relayer_password RELAYER_DB_PASSWORD
\getenv monitor_password MONITOR_DB_PASSWORD

CREATE ROLE ledger LOGIN PASSWORD :'ledger_password';
CREATE ROLE protocols LOGIN PASSWORD :'protocols_password';
CREATE ROLE rewards LOGIN PASSWORD :'rewards_password';
CREATE ROLE pool LOGIN PASSWORD :'pool_password';
CREATE ROLE relayer LOGIN PASSWORD :'relayer_password';

-- Each service owns its database; no other service can so much as connect to it.
CREATE DATABASE ledger OWNER ledger;
CREATE DATABASE protocols OWNER protocols;
CREATE DATABASE rewards OWNER rewards;
CREATE DATABASE pool OWNER pool;
CREATE DATABASE relayer OWNER relayer;

REVOKE CONNECT, TEMPORARY ON DATABASE ledger FROM PUBLIC;
REVOKE CONNECT, TEMPORARY ON DATABASE protocols FROM PUBLIC;
REVOKE CONNECT, TEMPORARY ON DATABASE rewards FROM PUBLIC;
REVOKE CONNECT, TEMPORARY ON DATABASE pool FROM PUBLIC;
REVOKE CONNECT, TEMPORARY ON DATABASE relayer FROM PUBLIC;

-- Reads three databases for the metrics, and can write nothing. No private key stands in any database.
CREATE ROLE monitor LOGIN PASSWORD :'monitor_password' CONNECTION LIMIT 10;
ALTER ROLE monitor SET default_transaction_read_only = on;
ALTER ROLE monitor SET statement_timeout = '10s';
GRANT pg_read_all_data TO monitor;
GRANT CONNECT ON DATABASE protocols, pool, relayer TO monitor;
