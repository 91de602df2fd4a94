-- What the first step of a request came to, while the lease of whoever made it holds: the row, its history, its user's lane
-- given back, and the event in the feed. No row is returned where the lease is gone, and nothing is changed.
-- Lock order as in apps/pool/models.py: the request, then the lane.
CREATE FUNCTION close_opening(
    opened_id text, token text, new_status text, new_reason jsonb, new_amount_wei numeric, new_settled_wei numeric,
    queues boolean
) RETURNS TABLE (changed_at timestamptz, queued timestamptz, eligible timestamptz, told_at timestamptz)
LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    changed requests;
BEGIN
    UPDATE requests r
    SET status = new_status, reason = new_reason, settled_wei = new_settled_wei,
        amount_wei = coalesce(new_amount_wei, r.amount_wei),
        queued_at = CASE WHEN queues THEN clock_timestamp() END, eligible_at = CASE WHEN queues THEN now() END,
        attempts = 0, last_error = NULL, parked_status = NULL, hinted_at = NULL, next_run_at = NULL, lease_token = NULL,
        lease_until = NULL, updated_at = clock_timestamp()
    WHERE r.id = opened_id AND r.lease_token = token
    RETURNING * INTO changed;
    IF NOT FOUND THEN
        RETURN;
    END IF;

    INSERT INTO flow_events (subject, subject_id, type, status, attempt, detail)
    VALUES ('request', opened_id, 'checkpoint', new_status, 1, new_reason);

    DELETE FROM user_lanes l WHERE l.pool_id = changed.pool_id AND l.user_id = changed.user_id AND l.holder = token;

    INSERT INTO unnumbered_events AS e (request_id, status, reason, amount_wei, settled_wei, batch_id)
    VALUES (opened_id, changed.status, changed.reason, changed.amount_wei, changed.settled_wei, changed.batch_id)
    RETURNING e.created_at INTO told_at;
    changed_at := changed.updated_at;
    queued := changed.queued_at;
    eligible := changed.eligible_at;
    RETURN NEXT;
END $$;
