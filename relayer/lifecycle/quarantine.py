"""Keys that another sender has used: found here, doubted first, then quarantined until `relayer.lifecycle.release`."""

import structlog
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from apps.common.database import transaction
from relayer.chain.doubts import STRONG_AFTER, WEAK_AFTER, doubted, drop, nonce_of, not_seen, seen_again
from relayer.chain.evidence import nonces_elsewhere
from relayer.chain.snapshot import ChainSnapshot
from relayer.context import RelayerContext
from relayer.store.models import Signer
from relayer.store.states import SignerState

log = structlog.get_logger(__name__)


def check_signers(context: RelayerContext, snapshot: ChainSnapshot) -> None:
    """Register a new key once nothing of it is pending, and quarantine a key that another sender has used.

    The database's nonce is read after the chain's and never falls. So a chain ahead of it means that the key was used
    outside the relayer, or that the database was restored from an old backup. Seen once this is a doubt: from then on
    nothing new of the key is signed. Seen again at later blocks, and by another endpoint where one answers, it is certain;
    sooner where a mined transaction shows it than where one node's pool does. A node that lies or is on a fork must not
    end a key's life.
    """
    chain_id = context.settings.chain_id
    subjects = {nonce_of(chain_id, address): address for address in snapshot.signers}
    with transaction(context.sessions) as session:
        known = {row.address: row for row in session.scalars(select(Signer).where(Signer.chain_id == chain_id))}
        in_doubt = {subjects[subject] for subject in doubted(session, list(subjects))}
    for address, view in snapshot.signers.items():
        row = known.get(address)
        if row is None and view.latest == view.pending:
            if set(nonces_elsewhere(context.endpoints, snapshot, address)) - {view.latest}:
                log.warning("endpoints_disagree", address=address)
                continue
            values = {"chain_id": chain_id, "address": address, "next_nonce": view.latest, "state": SignerState.ACTIVE}
            with transaction(context.sessions) as session:
                session.execute(insert(Signer).values(**values).on_conflict_do_nothing())
        elif (
            row is not None and row.state != SignerState.QUARANTINED and max(view.latest, view.pending) > row.next_nonce
        ):
            _doubt(context, snapshot, address, row.next_nonce)
        elif address in in_doubt:
            not_seen(context.sessions, nonce_of(chain_id, address), snapshot.head)


def quarantine(session: Session, chain_id: int, address: str) -> None:
    """Block signing with this key until an operator releases it: what else it signed is not recorded here."""
    session.execute(
        update(Signer)
        .where(Signer.chain_id == chain_id, Signer.address == address, Signer.state != SignerState.QUARANTINED)
        .values(state=SignerState.QUARANTINED, updated_at=func.clock_timestamp())
    )


def _doubt(context: RelayerContext, snapshot: ChainSnapshot, address: str, next_nonce: int) -> None:
    """Note that the chain is ahead of the stored nonce; quarantine the key once that was seen often enough."""
    view, subject = snapshot.signers[address], nonce_of(context.settings.chain_id, address)
    counts = {"latest": view.latest, "pending": view.pending, "stored": next_nonce}
    others = nonces_elsewhere(context.endpoints, snapshot, address)
    if others and max(others) <= next_nonce:
        log.warning("endpoints_disagree", address=address)
        return
    times = seen_again(context.sessions, subject, {}, snapshot.head)
    if times < (STRONG_AFTER if view.latest > next_nonce else WEAK_AFTER):
        log.warning("signer_doubted", address=address, seen=times, **counts)
        return
    with transaction(context.sessions) as session:
        quarantine(session, context.settings.chain_id, address)
    drop(context.sessions, [subject])
    log.error("signer_quarantined", address=address, **counts)
