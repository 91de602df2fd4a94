-- A request with the beginning of its history and its first event in the feed, leased under new_token to whoever makes it,
-- and its user's lane held under the same token where the lane is free: one round trip and one commit.
-- Lock order as in apps/pool/models.py: the request (a twin with the same message_id that has not ended yet is waited
-- for), the lane, the feed's counter. The statements of a function run one after the other, so nothing is waited for once
-- the counter is locked, and the order of the feed is that of the commits.
-- Nothing is made where the message_id is known. Run again because its answer was lost, with the id that it made the
-- request under, it tells what it made then.
CREATE FUNCTION open_request(
    new_id text, new_message_id text, new_body jsonb, new_kind text, new_pool_id text, new_user_id text,
    new_amount_wei numeric, new_status text, new_version int, new_token text, lease_sec float8,
    OUT opened boolean, OUT has_lane boolean, OUT made_at timestamptz, OUT told_at timestamptz
) LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    held_until timestamptz := now() + make_interval(secs => lease_sec);
    place bigint;
BEGIN
    INSERT INTO requests AS r (
        id, message_id, body, kind, pool_id, user_id, amount_wei, status, flow_version, attempts, next_run_at,
        lease_token, lease_until)
    VALUES (
        new_id, new_message_id, new_body, new_kind, new_pool_id, new_user_id, new_amount_wei, new_status, new_version, 1,
        now(), new_token, held_until)
    ON CONFLICT (message_id) DO NOTHING
    RETURNING r.created_at INTO made_at;
    opened := FOUND;
    IF NOT opened THEN
        SELECT r.created_at, e.created_at, EXISTS (SELECT FROM user_lanes l WHERE l.holder = new_token
                                                   AND l.pool_id = new_pool_id AND l.user_id = new_user_id)
        INTO made_at, told_at, has_lane
        FROM requests r JOIN request_events e ON e.request_id = r.id
        WHERE r.id = new_id AND r.lease_token = new_token
        ORDER BY e.sequence LIMIT 1;
        opened := FOUND;
        RETURN;
    END IF;

    INSERT INTO flow_events (subject, subject_id, type, status, attempt)
    VALUES ('request', new_id, 'created', new_status, 1);

    INSERT INTO user_lanes AS l (pool_id, user_id, holder, held_until)
    VALUES (new_pool_id, new_user_id, new_token, held_until)
    ON CONFLICT (pool_id, user_id) DO UPDATE SET holder = excluded.holder, held_until = excluded.held_until
    WHERE l.held_until < now();
    has_lane := FOUND;

    UPDATE feed_counter SET last_sequence = last_sequence + 1 RETURNING last_sequence INTO place;
    INSERT INTO request_events AS e (sequence, request_id, status, amount_wei)
    VALUES (place, new_id, new_status, new_amount_wei)
    RETURNING e.created_at INTO told_at;
END $$;
