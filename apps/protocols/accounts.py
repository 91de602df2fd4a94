"""What stands at an address that a user is to be paid at: a key's account, or a contract, or nobody's."""

from apps.clients.shapes.payouts import Account, AccountKind
from apps.ethereum.addresses import checksummed
from apps.ethereum.jsonrpc import Endpoint
from apps.ethereum.payees import ProtocolAddresses, not_a_payee
from apps.protocols.calls import Call, well_formed
from apps.protocols.chain import Chain

# The code of a key's account that runs another contract's (EIP-7702) is this and the contract's address.
DELEGATION = "0xef0100"
DELEGATION_CHARS = len(DELEGATION) + 40


class Accounts:
    """Looks at accounts, at the newest block: what is there now decides whether a transfer would be taken."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._protocol = ProtocolAddresses(chain.settings.steth_address)

    def account(self, address: str) -> Account:
        """Raises `ChainUnavailable` where no node tells."""
        return self._chain.endpoints.first(
            lambda endpoint: well_formed(lambda one: self._look(one, checksummed(address)), endpoint)
        )

    def _look(self, endpoint: Endpoint, address: str) -> Account:
        (code,) = self._chain.ask(endpoint, [Call("eth_getCode", [address, "latest"])])
        kind, delegate = AccountKind.CONTRACT, None
        if code in {"0x", None}:
            kind = AccountKind.PLAIN
        elif code.lower().startswith(DELEGATION) and len(code) == DELEGATION_CHARS:
            kind, delegate = AccountKind.DELEGATED, checksummed("0x" + code[-40:])
        return Account(address=address, kind=kind, delegate=delegate, refused=self._whose(endpoint, address))

    def _whose(self, endpoint: Endpoint, address: str) -> str | None:
        """What the address is that no user can have."""
        ours = {
            self._chain.custody: "custody itself",
            self._chain.operator: "the operator itself",
            self._chain.steth.address: "the stETH contract",
            self._chain.queue.address: "the withdrawal queue",
        }
        return not_a_payee(address) or ours.get(address) or self._protocol.names(endpoint).get(address)
