"""HTTP face of protocols: parse and answer, nothing else."""

from flask import Response, current_app, request

from apps.clients.base import CallFailed
from apps.clients.shapes.common import IdPageQuery
from apps.clients.shapes.history import (
    Apr,
    History,
    HistoryQuery,
    NewRescan,
    NewShareDifference,
    RebasePage,
    RebasesQuery,
    Rescan,
    RescanPage,
    ShareDifference,
)
from apps.clients.shapes.payouts import Account, Transfer, UnidentifiedDeposits, UnidentifiedQuery
from apps.clients.shapes.protocols import (
    BuildAmount,
    BuildClaim,
    BuildWithdrawals,
    LidoBlock,
    LidoReceipt,
    LidoState,
    StateQuery,
    UnsignedTransaction,
    WithdrawalIds,
    WithdrawalStatuses,
)
from apps.clients.shapes.reconciliation import (
    NewReconciliation,
    Reconciliation,
    ReconciliationPage,
    ReconciliationsQuery,
)
from apps.common.api import Blueprint
from apps.common.errors import InProgress, InvalidInput, NotConfigured, NotFound
from apps.common.shapes import schema_of
from apps.common.wire import BLOCK_NUMBER, BodySchema, QuerySchema, check_address, check_tx_hash
from apps.ethereum.endpoints import ChainUnavailable, NodeLacks, NodeRateLimited
from apps.protocols.accounts import Accounts
from apps.protocols.addresses import AddressCheck
from apps.protocols.builders import Builders
from apps.protocols.deposits import DepositReads
from apps.protocols.errors import (
    AllowanceInsufficient,
    ChainReorganized,
    CustodyRefusesEth,
    DifferenceUnproved,
    HistoryIncomplete,
    OperatorUnderfunded,
    ProtocolStopped,
    QueuePaused,
    StakeLimitExceeded,
    StakingPaused,
    StethInsufficient,
    TooManyElements,
    WithdrawalClaimed,
    WithdrawalNotFinalized,
    WithdrawalNotOwned,
    WithdrawalUnknown,
    WouldRevert,
)
from apps.protocols.reads import ProtocolsReads
from apps.protocols.service import ProtocolsService

blueprint = Blueprint("protocols", __name__, url_prefix="/v1", description="Lido: calldata, reads, reconciliation.")

# What a read of the chain may meet, and of the operator's history, which is proved before it is believed.
CHAIN = (ChainUnavailable, NodeRateLimited, NodeLacks, NotConfigured)
HISTORY = (*CHAIN, HistoryIncomplete, ChainReorganized)


ABOUT_THE_CHAIN = ("/v1/lido/", "/v1/accounts/", "/v1/deposits/", "/v1/transfers/")


@blueprint.before_request
def require_right_addresses() -> None:
    """All that reads the chain or builds for Lido waits until the addresses set are known to be one protocol's."""
    if request.path.startswith(ABOUT_THE_CHAIN) or request.method == "POST":
        addresses: AddressCheck = current_app.extensions["addresses"]
        addresses.require()


@blueprint.post("/lido/transactions/submit")
@blueprint.refuses(*CHAIN, ProtocolStopped, StakingPaused, StakeLimitExceeded, OperatorUnderfunded, WouldRevert)
@blueprint.arguments(schema_of(BuildAmount, BodySchema))
@blueprint.response(200, schema_of(UnsignedTransaction))
def build_submit(body: BuildAmount) -> UnsignedTransaction:
    """An unsigned submit, checked against the stake limit and the switches."""
    return _builders().submit(body.amount_wei)


@blueprint.post("/lido/transactions/approve")
@blueprint.refuses(*CHAIN, ProtocolStopped, WouldRevert)
@blueprint.arguments(schema_of(BuildAmount, BodySchema))
@blueprint.response(200, schema_of(UnsignedTransaction))
def build_approve(body: BuildAmount) -> UnsignedTransaction:
    """An unsigned approval of the withdrawal queue."""
    return _builders().approve(body.amount_wei)


@blueprint.post("/lido/transactions/request-withdrawals")
@blueprint.refuses(
    *CHAIN, ProtocolStopped, QueuePaused, StethInsufficient, AllowanceInsufficient, TooManyElements, WouldRevert
)
@blueprint.arguments(schema_of(BuildWithdrawals, BodySchema))
@blueprint.response(200, schema_of(UnsignedTransaction))
def build_withdrawal_request(body: BuildWithdrawals) -> UnsignedTransaction:
    """An unsigned request of withdrawals, split at 1000 stETH; `elements` in on-chain order."""
    return _builders().request_withdrawals(body.items)


@blueprint.post("/lido/transactions/claim")
@blueprint.refuses(
    *CHAIN,
    WithdrawalUnknown,
    WithdrawalClaimed,
    WithdrawalNotOwned,
    WithdrawalNotFinalized,
    CustodyRefusesEth,
    TooManyElements,
    WouldRevert,
)
@blueprint.arguments(schema_of(BuildClaim, BodySchema))
@blueprint.response(200, schema_of(UnsignedTransaction))
def build_claim(body: BuildClaim) -> UnsignedTransaction:
    """An unsigned claim to custody, ids sorted, hints found."""
    return _builders().claim(body.withdrawal_ids)


@blueprint.get("/lido/state")
@blueprint.refuses(*CHAIN, NotFound)
@blueprint.arguments(schema_of(StateQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(LidoState))
def get_lido_state(query: StateQuery) -> LidoState:
    """The protocol at one block, the latest where none is named."""
    return _reads().state(query.block)


@blueprint.get("/lido/blocks/<number>")
@blueprint.refuses(*CHAIN)
@blueprint.response(200, schema_of(LidoBlock))
def get_lido_block(number: str) -> LidoBlock:
    """A block's hash and time, from its header alone: a node tells them of any block, however little state it keeps."""
    if not BLOCK_NUMBER.fullmatch(number):
        raise InvalidInput(errors={"number": ["Must be the number of a block."]})
    return _reads().block(int(number))


@blueprint.get("/lido/history")
@blueprint.refuses(*HISTORY)
@blueprint.arguments(schema_of(HistoryQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(History))
def list_lido_history(query: HistoryQuery) -> History:
    """The operator's share history in chain order up to the money horizon."""
    return _reads().history(query)


@blueprint.post("/lido/rescan")
@blueprint.ops
@blueprint.refuses(*HISTORY, InProgress)
@blueprint.arguments(schema_of(NewRescan, BodySchema))
@blueprint.response(201, schema_of(Rescan))
@blueprint.alt_response(200, schema=schema_of(Rescan), description="A replay.")
def rescan_history(body: NewRescan) -> Response:
    """Ops: read a part of the history again, prove it, and mend what is stored of it; the answer lists what changed."""
    return _service().rescan(body).response()


@blueprint.post("/lido/share-differences")
@blueprint.ops
@blueprint.refuses(*HISTORY, DifferenceUnproved, InProgress, NotFound)
@blueprint.arguments(schema_of(NewShareDifference, BodySchema))
@blueprint.response(201, schema_of(ShareDifference))
@blueprint.alt_response(200, schema=schema_of(ShareDifference), description="A replay.")
def accept_share_difference(body: NewShareDifference) -> Response:
    """Ops: shares of the operator came or went in a block without a log; the history goes on past it."""
    return _service().accept_difference(body).response()


@blueprint.get("/lido/rescans")
@blueprint.refuses(*CHAIN)
@blueprint.arguments(schema_of(IdPageQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(RescanPage))
def list_rescans(query: IdPageQuery) -> RescanPage:
    """What was rescanned, newest first."""
    return _reads().rescans(query)


@blueprint.get("/lido/rebases")
@blueprint.refuses(*HISTORY)
@blueprint.arguments(schema_of(RebasesQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(RebasePage))
def list_rebases(query: RebasesQuery) -> RebasePage:
    """Rebases after a block, with the operator's reward of each."""
    return _reads().rebases(query)


@blueprint.get("/lido/receipts/<tx_hash>")
@blueprint.refuses(*CHAIN)
@blueprint.response(200, schema_of(LidoReceipt))
def get_lido_receipt(tx_hash: str) -> LidoReceipt:
    """What Lido's logs in one transaction say."""
    return _reads().receipt(check_tx_hash(tx_hash))


@blueprint.post("/lido/withdrawals/status")
@blueprint.refuses(*CHAIN, WithdrawalUnknown)
@blueprint.arguments(schema_of(WithdrawalIds, BodySchema))
@blueprint.response(200, schema_of(WithdrawalStatuses))
def list_withdrawal_statuses(body: WithdrawalIds) -> WithdrawalStatuses:
    """Status of up to 1,000 withdrawals."""
    return _reads().statuses(body.ids)


@blueprint.get("/lido/apr")
@blueprint.refuses(*HISTORY)
@blueprint.response(200, schema_of(Apr))
def get_apr() -> Apr:
    """The users' yearly rate: of the last rebase, and over seven days."""
    return _reads().apr()


@blueprint.post("/reconciliations")
@blueprint.refuses(*HISTORY, InProgress, CallFailed)
@blueprint.arguments(schema_of(NewReconciliation, BodySchema))
@blueprint.response(201, schema_of(Reconciliation))
@blueprint.alt_response(200, schema=schema_of(Reconciliation), description="A replay.")
def create_reconciliation(body: NewReconciliation) -> Response:
    """Compare books and chain at one block, and keep the result."""
    return _service().reconcile(body).response()


@blueprint.get("/reconciliations")
@blueprint.arguments(schema_of(ReconciliationsQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(ReconciliationPage))
def list_reconciliations(query: ReconciliationsQuery) -> ReconciliationPage:
    """Reconciliations, newest first."""
    return _reads().reconciliations(query)


@blueprint.get("/accounts/<address>")
@blueprint.refuses(*CHAIN)
@blueprint.response(200, schema_of(Account))
def get_account(address: str) -> Account:
    """What stands at an address now, and what it is that no user can be paid at, where it is that."""
    accounts: Accounts = current_app.extensions["accounts"]
    return accounts.account(check_address(address))


@blueprint.get("/transfers/<tx_hash>")
@blueprint.refuses(*CHAIN, CallFailed)
@blueprint.response(200, schema_of(Transfer))
def get_transfer(tx_hash: str) -> Transfer:
    """A transaction's own transfer of ETH, and the movement of the ledger that names it."""
    return _deposits().transfer(check_tx_hash(tx_hash))


@blueprint.get("/deposits/unidentified")
@blueprint.refuses(*CHAIN, CallFailed)
@blueprint.arguments(schema_of(UnidentifiedQuery, QuerySchema), location="query")
@blueprint.response(200, schema_of(UnidentifiedDeposits))
def list_unidentified(query: UnidentifiedQuery) -> UnidentifiedDeposits:
    """What came to custody and no movement of the ledger names, oldest first."""
    return _deposits().unidentified(query)


def _builders() -> Builders:
    builders: Builders = current_app.extensions["builders"]
    return builders


def _deposits() -> DepositReads:
    deposits: DepositReads = current_app.extensions["deposits"]
    return deposits


def _reads() -> ProtocolsReads:
    reads: ProtocolsReads = current_app.extensions["reads"]
    return reads


def _service() -> ProtocolsService:
    service: ProtocolsService = current_app.extensions["service"]
    return service
