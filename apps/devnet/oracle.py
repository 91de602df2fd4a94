"""What Lido's oracle and governance do on the real chain, as functions that act on a local deployment."""

from dataclasses import dataclass
from typing import Any

from web3 import Web3
from web3.logs import DISCARD
from web3.types import RPCEndpoint

from apps.common.wei import ETHER
from apps.devnet.deployment import Deployment, balance, connect, contract_at, read, send, set_balance, transact
from apps.ethereum.constants import RAY, ZERO_ADDRESS


@dataclass(frozen=True)
class Report:
    """What an oracle report did."""

    block_number: int
    tx_hash: str
    reward_wei: int
    finalized_up_to: int
    pre_total_ether_wei: int
    post_total_ether_wei: int


class Oracle:
    """Reports, finalization, pauses and limits of one deployment, and another user of it, the stranger."""

    def __init__(self, rpc_url: str, deployment: Deployment) -> None:
        self.web3: Web3 = connect(rpc_url)
        self.deployment = deployment
        self.lido = contract_at(self.web3, "Lido", deployment.steth)
        self.queue = contract_at(self.web3, "WithdrawalQueue", deployment.withdrawal_queue)

    def rebase(self, delta_wei: int, finalize_up_to: int | None = None) -> Report:
        """Report a reward (negative: a slashing), and finalize withdrawals up to an id (None: none)."""
        last = finalize_up_to or 0
        from_validators = self._needed_for(last, delta_wei) if last else 0
        receipt = self._owner(self.lido.functions.report(delta_wei, last, 0), from_validators)
        event = self.lido.events.TokenRebased().process_receipt(receipt, errors=DISCARD)[0]["args"]
        return Report(
            block_number=int(receipt["blockNumber"]),
            tx_hash=Web3.to_hex(receipt["transactionHash"]),
            reward_wei=delta_wei,
            finalized_up_to=int(self._read(self.queue.functions.getLastFinalizedRequestId())),
            pre_total_ether_wei=int(event["preTotalEther"]),
            post_total_ether_wei=int(event["postTotalEther"]),
        )

    def finalize(self, up_to: int | None = None) -> Report:
        """A report without reward that finalizes withdrawals up to an id, or all of them."""
        last = up_to if up_to is not None else int(self._read(self.queue.functions.getLastRequestId()))
        return self.rebase(0, last)

    def finalize_within(self, budget_wei: int) -> Report:
        """A report without reward that finalizes what so much ETH pays, first in first out: often a part of the queue."""
        first = int(self._read(self.queue.functions.getLastFinalizedRequestId())) + 1
        last = int(self._read(self.queue.functions.getLastRequestId()))
        rate = self._share_rate()
        affordable = 0
        for number in range(first, last + 1):
            if int(self._read(self.queue.functions.prefinalize(number, rate))[0]) > budget_wei:
                break
            affordable = number
        return self.rebase(0, affordable or None)

    def pause_staking(self) -> None:
        self._owner(self.lido.functions.pauseStaking())

    def resume_staking(self) -> None:
        self._owner(self.lido.functions.resumeStaking())

    def stop(self) -> None:
        self._owner(self.lido.functions.stop())

    def resume(self) -> None:
        self._owner(self.lido.functions.resume())

    def pause_queue(self) -> None:
        self._owner(self.queue.functions.pauseFor(2**256 - 1))

    def resume_queue(self) -> None:
        self._owner(self.queue.functions.resume())

    def set_bunker(self, *, active: bool) -> None:
        self._owner(self.queue.functions.setBunkerMode(active))

    def set_stake_limit(self, max_wei: int, growth_blocks: int) -> None:
        """Set the limit (0: none), full at first, regenerating max/growth_blocks a block (0: never)."""
        self._owner(self.lido.functions.setStakingLimit(max_wei, growth_blocks))

    def set_fee(self, basis_points: int) -> None:
        """The protocol's part of rewards; 1000 on the real one."""
        self._owner(self.lido.functions.setFee(basis_points))

    def stranger_submit(self, amount_wei: int) -> str:
        """The stranger stakes; returns the transaction's hash."""
        stranger = self.deployment.stranger
        self.fund(stranger, amount_wei)
        receipt = transact(self.web3, self.lido.functions.submit(ZERO_ADDRESS), stranger, amount_wei)
        return Web3.to_hex(receipt["transactionHash"])

    def stranger_transfer(self, to: str, amount_wei: int) -> str:
        """The stranger sends stETH; returns the transaction's hash."""
        call = self.lido.functions.transfer(Web3.to_checksum_address(to), amount_wei)
        return Web3.to_hex(transact(self.web3, call, self.deployment.stranger)["transactionHash"])

    def stranger_request(self, amount_wei: int) -> int:
        """The stranger requests a withdrawal; returns the id of its NFT."""
        stranger = self.deployment.stranger
        queue = Web3.to_checksum_address(self.deployment.withdrawal_queue)
        transact(self.web3, self.lido.functions.approve(queue, amount_wei), stranger)
        receipt = transact(self.web3, self.queue.functions.requestWithdrawals([amount_wei], stranger), stranger)
        event: Any = self.queue.events.WithdrawalRequested().process_receipt(receipt, errors=DISCARD)[0]
        return int(event["args"]["requestId"])

    def fund(self, address: str, wei: int) -> str:
        """Send real ETH to an address, as a user's deposit would arrive; returns the transaction's hash."""
        owner = self.deployment.owner
        if balance(self.web3, owner) < wei + 10 * ETHER:
            set_balance(self.web3, owner, wei + 1_000_000 * ETHER)
        receipt = send(self.web3, {"from": owner, "to": address, "value": hex(wei)})
        return Web3.to_hex(receipt["transactionHash"])

    def mine(self, blocks: int = 1) -> None:
        self.web3.provider.make_request(RPCEndpoint("anvil_mine"), [hex(blocks)])

    def _share_rate(self) -> int:
        """Wei of ether for 10^27 shares, as a report passes it to the queue."""
        ether, shares = (
            self._read(self.lido.functions.getTotalPooledEther()),
            self._read(self.lido.functions.getTotalShares()),
        )
        return int(ether) * RAY // int(shares)

    def _needed_for(self, last: int, reward_wei: int) -> int:
        """ETH that must come from validators so that the buffer can pay the withdrawals up to an id."""
        finalized = int(self._read(self.queue.functions.getLastFinalizedRequestId()))
        if last <= finalized:
            return 0
        ids = list(range(finalized + 1, last + 1))
        asked = sum(int(status[0]) for status in self._read(self.queue.functions.getWithdrawalStatus(ids)))
        buffered = int(self._read(self.lido.functions.getBufferedEther()))
        beacon = int(self._read(self.lido.functions.getTotalPooledEther())) - buffered + reward_wei
        needed = max(0, min(asked - buffered, beacon))
        owner = self.deployment.owner
        if needed and balance(self.web3, owner) < needed + 10 * ETHER:
            set_balance(self.web3, owner, needed + 1_000_000 * ETHER)
        return needed

    def _read(self, call: Any) -> Any:
        return read(self.web3, call)

    def _owner(self, call: Any, value: int = 0) -> Any:
        return transact(self.web3, call, self.deployment.owner, value)
