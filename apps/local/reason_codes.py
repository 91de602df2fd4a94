"""Every ``reason.code`` that a request, batch, walk or relayer transaction can carry: what it means and what to do."""

BY_ITSELF = "Nothing: it goes on by itself."
LOOK = (
    "`GET /v1/walk` names the ways out; say what happened with `POST /v1/walk/resolve`. Nothing is skipped until then."
)

REQUESTS_AND_BATCHES = {
    "address_not_allowed": (
        "The payee was taken off the user's payout addresses before the transfer was made; the ETH is back.",
        "Nothing; add the address again if that was a mistake.",
    ),
    "amount_too_small": ("Rounding left less than can be requested; it is staked again.", "Nothing."),
    "batch_open": ("Unstake batches go one at a time; the detail names the open one.", BY_ITSELF),
    "approval_refused": ("Somebody of the company refused the payout; the ETH is back.", "Nothing."),
    "attempts_exhausted": ("A step failed too often; the detail holds its last error.", "Mend the cause, then retry."),
    "batches_paused": (
        "A drift was found and `PAUSE_BATCHES_ON_DRIFT` is set; payouts stop too.",
        "Explain the drift, then resume.",
    ),
    "books_behind": ("Ledger and reward index disagree about a user.", "See the reconciliation, then retry."),
    "bunker": ("Lido is in bunker mode after a loss, and pays withdrawals later than usual.", BY_ITSELF),
    "conflict": (
        "Another sender used the signing key's nonce.",
        "Find out what that transaction did; then resolve the walk with it, or release the batch. A payout: confirm it with "
        "the transaction that paid it (`POST /v1/payouts/{id}/paid`), or release it.",
    ),
    "drift": (
        "Reconciliation found the books and the chain to differ; the detail names the lines.",
        "Explain the drift, then resume: `POST /v1/batches/resume`.",
    ),
    "loss_ahead": ("Lido lost ETH in a block that the books have not reached: it is booked first.", BY_ITSELF),
    "custody_refuses_eth": (
        "Custody is a contract that does not take the ETH of a claim; it is tried again, each time later.",
        "Let custody take plain ETH; it then goes on by itself.",
    ),
    "daily_cap": ("The relayer's `MAX_VALUE_PER_DAY_WEI` leaves no room for it today.", BY_ITSELF),
    "lost_to_slashing": ("A slashing left less than can be requested; the rest is staked again.", "Nothing."),
    "operator_underfunded": (
        "Custody's key is elsewhere, and the operator's address lacks the wei named.",
        "Send them.",
    ),
    "deposit_posted": ("The transaction's ETH is in the books already; the detail says under which name.", "Nothing."),
    "payout_differs": (
        "Under the payout's name the relayer has another transfer than the pool asked for.",
        "Suspect the key of the pool; nothing is booked or given back until you have looked.",
    ),
    "payout_has_effect": (
        "A released payout was not given back: its transfer took effect, or may.",
        "Retry it, or confirm it with the transaction that paid it.",
    ),
    "walk_halted": ("The walk stands still, so nothing is paid out.", "Resolve the walk; " + BY_ITSELF),
    "protocol_stopped": ("Lido is stopped.", BY_ITSELF),
    "protocols_unavailable": ("Protocols or its node does not answer, so no batch is opened.", BY_ITSELF),
    "queue_paused": ("The withdrawal queue is paused.", BY_ITSELF),
    "settling_loss": ("A loss is being booked first.", BY_ITSELF),
    "stake_above_cap": (
        "The stake alone is above a cap of the relayer; others go past it.",
        "Raise the cap named, or cancel it and stake less.",
    ),
    "stake_above_limit": (
        "The stake alone is above the most that Lido ever takes at once; others go past it.",
        "Cancel it and stake less, or wait until Lido's limit is raised.",
    ),
    "stake_limit": ("The batch is above what Lido takes right now; the limit refills with every block.", BY_ITSELF),
    "stake_limit_exceeded": ("Lido's stake limit was met; the requests are queued again.", BY_ITSELF),
    "staking_paused": ("Lido does not take stakes now; the requests are queued again.", BY_ITSELF),
    "steth_insufficient": ("The operator holds less stETH than the batch requests.", "See the reconciliation."),
    "too_many_elements": ("The batch made too many withdrawals; it is asked for in halves.", BY_ITSELF),
    "user_on_hold": (
        "Ops keep this user from it; the request waits in the queue.",
        "GET /v1/holds?user_id= says why; POST /v1/holds/{id}/release ends it.",
    ),
    "unstake_above_limit": (
        "The unstake alone makes more than the 100 withdrawals of one request; others go past it.",
        "Cancel it and ask for parts of it.",
    ),
    "withdrawal_queue": ("Lido pays withdrawals in its order; `next.due_at` is an estimate.", BY_ITSELF),
    "transaction_missing": ("A batch has no stored transaction to send.", "This is a defect; keep the database."),
    "batch_has_effect": ("A released batch has a transaction that took effect, or may.", "Resolve the walk with it."),
    "released": (
        "Ops released the batch it was part of, and it waits for the next one; or the payout, whose ETH is back.",
        BY_ITSELF,
    ),
    "reverted": ("The transaction reverted; the detail holds the revert.", "Read the detail; the users' ETH is back."),
}
WALK = {
    "booking_refused": ("Ledger or reward index refuses a booking for good; the halt names the effect.", LOOK),
    "chain_reorganized": ("A block whose items are booked has left the chain.", LOOK),
    "claim_paid_elsewhere": ("A withdrawal was claimed to an address that is not custody.", LOOK),
    "dust_out_of_bounds": ("The operator's stETH is off by more than rounding can be.", LOOK),
    "foreign_out": ("stETH left the operator in a transaction that is none of ours.", "Suspect the key. " + LOOK),
    "loss_unplaced": ("A user's loss fits none of their queued unstakes.", LOOK),
    "receipt_missing": ("The node has no receipt of a transaction whose log it gave.", "Check the node; " + BY_ITSELF),
    "request_mismatch": ("The withdrawals on chain are not those a batch asked for.", LOOK),
    "reward_source_refused": ("`REWARD_SOURCE=total_pooled_ether` where others hold shares too.", "Use `share_rate`."),
    "shares_mismatch": ("The operator's shares are not the sum of the flows walked.", LOOK),
    "submit_mismatch": ("The amount submitted on chain is not a batch's.", LOOK),
    "unknown_request": ("A withdrawal request on chain belongs to no batch.", LOOK),
    "unknown_submit": ("A submit of the operator belongs to no batch.", LOOK),
    "unknown_withdrawal": ("A claimed withdrawal belongs to no request.", LOOK),
    "walk_fault": ("A fault that nobody foresaw; the worker's log has it whole.", "Mend it; " + BY_ITSELF),
    "waiting": ("A service refused for now; the detail says which.", BY_ITSELF),
}
WEBHOOKS = {
    "address_refused": (
        "The name of the endpoint stands for a private address.",
        "Let it stand for public ones, or set `WEBHOOK_ALLOW_PRIVATE`.",
    ),
    "certificate_refused": ("The endpoint's certificate is not valid for its name.", "Mend the certificate."),
    "connection_failed": ("No connection was made, or it broke before the answer was whole.", "Look at the endpoint."),
    "disabled_by_caller": ("Somebody disabled the webhook.", "Enable it."),
    "gone": ("The endpoint answered 410, which disables it.", "Change its url if it has moved; then enable it."),
    "name_unknown": ("The name of the endpoint stands for no address.", "Change the url, or mend the name's entry."),
    "no_answer": ("The call was not over within ten seconds.", "Answer first, and work afterwards."),
    "not_http": ("What came was not an answer of HTTP.", "Look at what listens there."),
    "redirected": (
        "The endpoint answered with a redirect, which is not followed.",
        "Change the url to where it leads.",
    ),
    "refused": ("The endpoint answered something other than 2xx.", "Read its log; the event is sent again."),
}
RELAYER = {
    "call_not_allowed": ("The policy does not sign this function, or not with this value.", "Send what it allows."),
    "cancel_requested": ("An empty transaction races it for its nonce.", "Wait: whichever is mined decides."),
    "cancelled_by_caller": ("Taken back before it was signed.", "Nothing."),
    "daily_gas_over_cap": ("`MAX_GAS_PER_DAY_WEI` would be passed.", "Wait, or raise the cap; it goes on by itself."),
    "daily_value_over_cap": (
        "`MAX_VALUE_PER_DAY_WEI`, or of a payout `MAX_PAYOUT_PER_DAY_WEI`, would be passed.",
        "Wait, or raise the cap; it goes on by itself.",
    ),
    "deadline_passed": (
        "It was not signed in time; or it was, and an empty transaction now races it for its nonce.",
        "Once it is `expired`, send it under a new message_id.",
    ),
    "destination_not_allowed": ("The policy signs nothing to this address.", "A payout names `purpose: payout`."),
    "done_by_foreign_transaction": (
        "A transaction that is none of ours did the same, as after a restored backup; nothing was signed.",
        "The status is `conflict`: see what that transaction was, then decide by hand.",
    ),
    "fee_capped": (
        "A higher price is held by a cap or the balance; the stored bytes are sent again.",
        "Wait until gas is cheaper, raise the cap, or cancel.",
    ),
    "fee_over_cap": ("Gas costs more than `MAX_GAS_PER_TX_WEI` allows.", "Wait, or raise the cap."),
    "gas_limit_too_low": ("The gas limit does not suffice for the call.", "Name a higher one in a new message."),
    "insufficient_funds": ("The signer lacks the wei named for value and gas.", "Send them; it goes on by itself."),
    "malformed_calldata": ("The calldata is not the plain encoding of its function.", "Use a builder of protocols."),
    "no_fees": ("The node tells no base fee.", BY_ITSELF),
    "nonce_taken": ("A transaction that is none of ours used the nonce.", "The status is `conflict`: suspect the key."),
    "not_configured": ("An address that the policy needs is not set.", "Set the name given."),
    "owner_not_operator": ("Withdrawal NFTs must belong to the operator.", "Use a builder of protocols."),
    "payout_target_refused": (
        "No user can be paid there: a contract of the protocol or the chain, a burn address, or the house itself.",
        "Ask the payee for an address of their own; the detail says what this one is.",
    ),
    "recipient_not_custody": ("Claims pay custody only.", "Use a builder of protocols."),
    "refused_by_nodes": (
        "Nodes call the transaction invalid; an empty one takes its nonce.",
        "Read the message's events; once it is `rejected`, send it under a new message_id.",
    ),
    "replaced": ("An empty transaction of the same nonce was mined instead.", "Send it under a new message_id."),
    "signer_doubted": (
        "A node shows a transaction of this key that is not ours; until that is seen again, or is not, nothing is signed.",
        "Nothing: after a few blocks it goes on, or the key is `quarantined`.",
    ),
    "signer_failed": ("The signer did not sign, or signed something else.", "Look at the signer; " + BY_ITSELF),
    "signer_not_active": ("Nothing is signed with this key now.", "See `/v1/signers`."),
    "simulation_failed": ("The node could not simulate the call.", BY_ITSELF),
    "simulation_reverted": ("The call would revert; the detail holds the revert.", "Read the detail."),
    "spender_not_queue": ("Only the withdrawal queue may be approved.", "Use a builder of protocols."),
    "targets_unknown": ("The node does not say which contracts the protocol's locator names.", BY_ITSELF),
    "unknown_signer": ("No key of the sender is held.", "Add it to `SIGNER_KEYS`, or name another sender."),
    "value_over_cap": (
        "`MAX_VALUE_PER_TX_WEI` is passed, or alone all of `MAX_VALUE_PER_DAY_WEI`; of a payout the `MAX_PAYOUT_` caps.",
        "Split it, or raise the cap.",
    ),
    "wrong_signer": (
        "This sender may not send this.",
        "Lido is called by the operator, transfers by custody or operator.",
    ),
    "node_<reply>": ("What the node said to the last broadcast, for information.", BY_ITSELF),
}
EVERYWHERE = {
    "Requests and batches (pool)": REQUESTS_AND_BATCHES,
    "The walk (pool)": WALK,
    "Webhooks (pool)": WEBHOOKS,
    "Transactions (relayer)": RELAYER,
}
