"""What the clients of ledger and rewards ask alike: audits of a pool's books."""

from apps.clients.base import ServiceClient
from apps.clients.shapes.common import Audit, AuditPage

# An audit replays a whole history. A reconciliation holds its lane for a hundred seconds and asks for no more than this.
AUDIT_TIMEOUT_SEC = 40.0


class AuditedClient(ServiceClient):
    """Calls a service that audits what it holds."""

    def audit(self, pool_id: str, *, full: bool = True) -> Audit:
        """Compute a pool's books again and compare; a full audit looks at their whole history, else at what is new."""
        return self.write(Audit, "/v1/audits", {"pool_id": pool_id, "full": full}, timeout=AUDIT_TIMEOUT_SEC)

    def latest_audit(self) -> Audit | None:
        found = self.read(AuditPage, "/v1/audits", limit=1).items
        return found[0] if found else None
