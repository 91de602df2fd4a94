"""Where a payout never goes: addresses that no user has, and the protocol's contracts, most of which keep ETH for good.

stETH is the worst of them: plain ETH that is sent to it is staked for its sender. What is known without a chain stands
here; what the protocol itself names is read from its locator and kept for a while.
"""

import time
from collections.abc import Mapping

from eth_utils.abi import function_signature_to_4byte_selector
from eth_utils.address import is_address

from apps.ethereum.addresses import checksummed
from apps.ethereum.jsonrpc import Endpoint, RpcError, Unanswered

RESERVED_BELOW = 0x10000  # precompiles are 0x01..0x11 and 0x0100 today; new ones come next to them
ANEW_AFTER_SEC = 600.0

# No user has the address of another chain's contract either, so all of them are refused on every chain.
KNOWN: Mapping[str, str] = {
    "0x000000000000000000000000000000000000dEaD": "a burn address",
    "0xdEAD000000000000000042069420694206942069": "a burn address",
    "0xdeaDDeADDEaDdeaDdEAddEADDEAdDeadDEADDEaD": "a burn address",
    "0xFFfFfFffFFfffFFfFFfFFFFFffFFFffffFfFFFfF": "a burn address",
    "0xEeeeeEeeeEeEeeEeEeEeeEEEeeeeEeeeeeeeEEeE": "the name that some give to ETH itself",
    "0xffffFFFfFFffffffffffffffFfFFFfffFFFfFFfE": "the system's address",
    "0x000F3df6D732807Ef1319fB7B8bB8522d0Beac02": "a system contract (beacon roots)",
    "0x0000F90827F1C53a10cb7A02335B175320002935": "a system contract (block hashes)",
    "0x00000961Ef480Eb55e80D19ad83579A64c007002": "a system contract (withdrawal requests)",
    "0x0000BBdDc7CE488642fb579F8B00f3a590007251": "a system contract (consolidation requests)",
    "0x00000000219ab540356cBB839Cbe05303d7705Fa": "the deposit contract",
    "0x4242424242424242424242424242424242424242": "the deposit contract",
    "0x7f02C3E3c98b133055B8B348B2Ac625669Ed295D": "the deposit contract",
    # Lido on mainnet, Hoodi, Holesky and Sepolia.
    "0xC1d0b3DE6792Bf6b4b37EccdcC24e45978Cfd2Eb": "Lido's locator",
    "0xe2EF9536DAAAEBFf5b1c130957AB3E80056b06D8": "Lido's locator",
    "0x28FAB2059C713A7F9D8c86Db49f9bb0e96Af1ef8": "Lido's locator",
    "0x8f6254332f69557A72b0DA2D5F0Bc07d4CA991E7": "Lido's locator",
    "0xae7ab96520DE3A18E5e111B5EaAb095312D7fE84": "Lido's stETH",
    "0x3508A952176b3c15387C97BE809eaffB1982176a": "Lido's stETH",
    "0x3F1c547b21f65e10480dE3ad8E19fAAC46C95034": "Lido's stETH",
    "0x3e3FE7dBc6B4C189E7128855dD526361c49b40Af": "Lido's stETH",
    "0x889edC2eDab5f40e902b864aD4d7AdE8E412F9B1": "Lido's withdrawal queue",
    "0xfe56573178f1bcdf53F01A6E9977670dcBBD9186": "Lido's withdrawal queue",
    "0xc7cc160b58F8Bb0baC94b80847E2CF2800565C50": "Lido's withdrawal queue",
    "0x1583C7b3f4C3B008720E6BcE5726336b0aB25fdd": "Lido's withdrawal queue",
    "0x7f39C581F595B53c5cb19bD0b3f8dA6c935E2Ca0": "Lido's wstETH",
    "0x7E99eE3C66636DE415D2d7C880938F2f40f94De4": "Lido's wstETH",
    "0x8d09a4502Cc8Cf1547aD300E066060D043f6982D": "Lido's wstETH",
    "0xB82381A3fBD3FaFA77B3a7bE693342618240067b": "Lido's wstETH",
    "0x852deD011285fe67063a08005c71a85690503Cee": "Lido's accounting oracle",
    "0xcb883B1bD0a41512b42D2dB267F2A2cd919FB216": "Lido's accounting oracle",
    "0x4E97A3972ce8511D87F334dA17a2C332542a5246": "Lido's accounting oracle",
    "0xd497Be005638efCf09F6BFC8DAFBBB0BB72cD991": "Lido's accounting oracle",
}
_KNOWN = {address.lower(): name for address, name in KNOWN.items()}

# What a locator of any version may name.
LOCATOR_NAMES = (
    "accounting", "accountingOracle", "burner", "depositSecurityModule", "elRewardsVault", "lazyOracle", "legacyOracle",
    "lido", "operatorGrid", "oracleDaemonConfig", "oracleReportSanityChecker", "postTokenRebaseReceiver",
    "predepositGuarantee", "stakingRouter", "treasury", "triggerableWithdrawalsGateway", "validatorExitDelayVerifier",
    "validatorsExitBusOracle", "vaultFactory", "vaultHub", "withdrawalQueue", "withdrawalVault", "wstETH",
)  # fmt: skip
_WORD_HEX = 66


def not_a_payee(address: str) -> str | None:
    """What an address is that no payee can have; None where a payee may have it."""
    if int(address, 16) < RESERVED_BELOW:
        return "reserved for the chain's own contracts"
    return _KNOWN.get(address.lower())


class ProtocolAddresses:
    """The contracts that the protocol's locator names, by checksummed address; read from the chain, kept ten minutes."""

    def __init__(self, steth: str | None) -> None:
        self._steth = steth if steth and is_address(steth) and int(steth, 16) else None
        self._read_at = float("-inf")
        self._found: dict[str, str] = {}

    def names(self, endpoint: Endpoint) -> Mapping[str, str]:
        """Raises `Unanswered` where the node does not say; a protocol that names no locator has no other addresses."""
        if self._steth is not None and time.monotonic() - self._read_at > ANEW_AFTER_SEC:
            self._found = self._read(endpoint, self._steth)
            self._read_at = time.monotonic()
        return self._found

    def _read(self, endpoint: Endpoint, steth: str) -> dict[str, str]:
        locator = _addresses(endpoint, steth, ("getLidoLocator",))
        if not locator:
            return {}
        address = next(iter(locator))
        found = {address: "the locator of the protocol"}
        return found | {
            to: f"the protocol's {name}" for to, name in _addresses(endpoint, address, LOCATOR_NAMES).items()
        }


def _addresses(endpoint: Endpoint, contract: str, names: tuple[str, ...]) -> dict[str, str]:
    """Names by the address that each function without arguments returns; one that is not there names nothing."""
    calls = [
        (
            "eth_call",
            [{"to": contract, "data": "0x" + function_signature_to_4byte_selector(f"{name}()").hex()}, "latest"],
        )
        for name in names
    ]
    found: dict[str, str] = {}
    for name, result in zip(names, endpoint.batch(calls), strict=True):
        if isinstance(result, RpcError):
            if result.data or result.code == 3 or "revert" in result.message.lower():
                continue
            raise Unanswered(f"{name}: the node cannot say")
        if isinstance(result, str) and len(result) == _WORD_HEX and 0 < int(result, 16) < 2**160:
            found[checksummed("0x" + result[-40:])] = name
    return found
