-- A request with the beginning of its history and its first event in the feed, leased under new_token to whoever makes it,
-- and its user's lane held under the same token where the lane is free: one round trip and one commit.
-- Lock order as in apps/pool/models.py: the request (a twin with the same message_id that has not ended yet is waited
-- for), then the lane.
-- Nothing is made where the message_id is known, nor while a hold keeps the user from it: a hold that was committed before
-- this statement began is seen. Run again because its answer was lost, with the id that it made the
-- request under, it tells what it made then.
CREATE FUNCTION open_request(
    new_id text, new_message_id text, new_body jsonb, new_kind text, new_pool_id text, new_user_id text,
    new_amount_wei numeric, new_status text, new_version int, new_token text, lease_sec float8,
    OUT opened boolean, OUT has_lane boolean, OUT made_at timestamptz, OUT told_at timestamptz
) LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    held_until timestamptz := now() + make_interval(secs => lease_sec);
BEGIN
    INSERT INTO requests AS r (
        id, message_id, body, kind, pool_id, user_id, amount_wei, status, flow_version, attempts, next_run_at,
        lease_token, lease_until)
    SELECT
        new_id, new_message_id, new_body, new_kind, new_pool_id, new_user_id, new_amount_wei, new_status, new_version, 1,
        now(), new_token, held_until
    WHERE NOT EXISTS (
        SELECT FROM user_holds h
        WHERE h.pool_id = new_pool_id AND h.user_id = new_user_id AND h.actions && ARRAY['all', new_kind]
          AND NOT EXISTS (SELECT FROM user_hold_releases e WHERE e.hold_id = h.id))
    ON CONFLICT (message_id) DO NOTHING
    RETURNING r.created_at INTO made_at;
    opened := FOUND;
    IF NOT opened THEN
        SELECT r.created_at, EXISTS (SELECT FROM user_lanes l WHERE l.holder = new_token
                                     AND l.pool_id = new_pool_id AND l.user_id = new_user_id)
        INTO made_at, has_lane
        FROM requests r WHERE r.id = new_id AND r.lease_token = new_token;
        opened := FOUND;
        SELECT e.created_at INTO told_at FROM (
            SELECT u.created_at FROM unnumbered_events u WHERE u.request_id = new_id
            UNION ALL SELECT n.created_at FROM request_events n WHERE n.request_id = new_id
        ) e;
        RETURN;
    END IF;

    INSERT INTO flow_events (subject, subject_id, type, status, attempt)
    VALUES ('request', new_id, 'created', new_status, 1);

    INSERT INTO user_lanes AS l (pool_id, user_id, holder, held_until)
    VALUES (new_pool_id, new_user_id, new_token, held_until)
    ON CONFLICT (pool_id, user_id) DO UPDATE SET holder = excluded.holder, held_until = excluded.held_until
    WHERE l.held_until < now();
    has_lane := FOUND;

    INSERT INTO unnumbered_events AS e (request_id, status, amount_wei)
    VALUES (new_id, new_status, new_amount_wei)
    RETURNING e.created_at INTO told_at;
END $$;
