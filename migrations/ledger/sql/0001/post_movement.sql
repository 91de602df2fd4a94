-- The whole of one movement in one call: key, locks, rules, movement, balance. Lock order as in apps/ledger/models.py.
-- The same rules stand in apps/ledger/posting.py for batches, with the reason why there are two.
CREATE FUNCTION post_movement(
    new_message_id text, new_kind text, new_pool_id text, new_user_id text, new_source text, new_target text,
    new_amount numeric, new_reference text, new_request_id text,
    OUT outcome text, OUT id bigint, OUT message_id text, OUT kind text, OUT pool_id text, OUT user_id text,
    OUT amount_wei numeric, OUT reference text, OUT created_at timestamptz,
    OUT code text, OUT bucket text, OUT missing_wei numeric, OUT request_id text
) LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    original movements;
    held balances;
    wei_after numeric;
BEGIN
    outcome := 'posted';
    INSERT INTO message_keys (message_id) VALUES (new_message_id) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        outcome := 'known';
        SELECT m.id, m.message_id, m.kind, m.pool_id, m.user_id, m.amount_wei, m.reference, m.created_at
        INTO id, message_id, kind, pool_id, user_id, amount_wei, reference, created_at
        FROM movements m WHERE m.message_id = new_message_id;
        IF NOT FOUND THEN
            SELECT r.message_id, r.kind, r.pool_id, r.user_id, r.amount_wei, r.reference,
                   r.code, r.bucket, r.missing_wei, r.request_id
            INTO message_id, kind, pool_id, user_id, amount_wei, reference, code, bucket, missing_wei, request_id
            FROM refusals r WHERE r.message_id = new_message_id;
        END IF;
        RETURN;
    END IF;

    message_id := new_message_id;
    kind := new_kind;
    pool_id := new_pool_id;
    user_id := new_user_id;
    amount_wei := new_amount;
    reference := new_reference;

    IF new_kind = 'reversal' THEN
        SELECT * INTO original FROM movements m WHERE m.message_id = new_reference FOR NO KEY UPDATE;
        IF NOT FOUND OR original.kind = 'reversal'
           OR (original.pool_id, original.user_id, original.amount_wei)
              IS DISTINCT FROM (new_pool_id, new_user_id, new_amount) THEN
            code := 'not_reversible';
        ELSIF EXISTS (SELECT FROM movements m WHERE m.kind = 'reversal' AND m.reference = new_reference) THEN
            code := 'already_reversed';
        END IF;
        new_source := original.target;
        new_target := original.source;
    END IF;

    IF code IS NULL AND new_user_id IS NOT NULL THEN
        SELECT * INTO held FROM balances b
        WHERE b.pool_id = new_pool_id AND b.user_id = new_user_id FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            IF new_source NOT LIKE '@%' THEN
                code := 'insufficient_balance';
                bucket := new_source;
                missing_wei := new_amount;
            ELSE
                PERFORM announce_new_balances();
                INSERT INTO balances (pool_id, user_id) VALUES (new_pool_id, new_user_id) ON CONFLICT DO NOTHING;
                SELECT * INTO held FROM balances b
                WHERE b.pool_id = new_pool_id AND b.user_id = new_user_id FOR NO KEY UPDATE;
            END IF;
        END IF;
    END IF;

    IF code IS NULL AND new_user_id IS NOT NULL THEN
        CASE new_source
            WHEN 'available' THEN wei_after := held.available_wei - new_amount;
            WHEN 'reserved' THEN wei_after := held.reserved_wei - new_amount;
            WHEN 'staked' THEN wei_after := held.staked_wei - new_amount;
            WHEN 'unstaking' THEN wei_after := held.unstaking_wei - new_amount;
            ELSE wei_after := 0;
        END CASE;
        IF wei_after < 0 THEN
            code := 'insufficient_balance';
            bucket := new_source;
            missing_wei := -wei_after;
        END IF;
    END IF;

    IF code IS NULL AND new_user_id IS NOT NULL THEN
        CASE new_target
            WHEN 'available' THEN wei_after := held.available_wei + new_amount;
            WHEN 'reserved' THEN wei_after := held.reserved_wei + new_amount;
            WHEN 'staked' THEN wei_after := held.staked_wei + new_amount;
            WHEN 'unstaking' THEN wei_after := held.unstaking_wei + new_amount;
            ELSE wei_after := 0;
        END CASE;
        IF wei_after >= 115792089237316195423570985008687907853269984665640564039457584007913129639936 THEN
            code := 'balance_too_large';
            bucket := new_target;
        END IF;
    END IF;

    IF code IS NOT NULL THEN
        outcome := 'refused';
        request_id := new_request_id;
        INSERT INTO refusals (message_id, kind, pool_id, user_id, amount_wei, reference, code, bucket, missing_wei,
                              request_id)
        VALUES (new_message_id, new_kind, new_pool_id, new_user_id, new_amount, new_reference, code, bucket,
                missing_wei, new_request_id);
        RETURN;
    END IF;

    PERFORM announce_movements();
    IF new_user_id IS NULL THEN
        INSERT INTO movements AS m (message_id, kind, pool_id, source, target, amount_wei, reference)
        VALUES (new_message_id, new_kind, new_pool_id, new_source, new_target, new_amount, new_reference)
        RETURNING m.id, m.created_at INTO id, created_at;
        RETURN;
    END IF;
    -- Drawn under the row's lock, and never back even if the clock goes back: the user's commit order is time order.
    created_at := greatest(clock_timestamp(), held.updated_at + interval '1 microsecond');
    INSERT INTO movements AS m (
        message_id, kind, pool_id, user_id, source, target, amount_wei, reference, created_at, previous_id,
        available_wei, reserved_wei, staked_wei, unstaking_wei)
    VALUES (
        new_message_id, new_kind, new_pool_id, new_user_id, new_source, new_target, new_amount, new_reference,
        created_at, held.last_movement_id,
        held.available_wei + new_amount * ((new_target = 'available')::int - (new_source = 'available')::int),
        held.reserved_wei + new_amount * ((new_target = 'reserved')::int - (new_source = 'reserved')::int),
        held.staked_wei + new_amount * ((new_target = 'staked')::int - (new_source = 'staked')::int),
        held.unstaking_wei + new_amount * ((new_target = 'unstaking')::int - (new_source = 'unstaking')::int))
    RETURNING m.id, m.available_wei, m.reserved_wei, m.staked_wei, m.unstaking_wei
    INTO id, held.available_wei, held.reserved_wei, held.staked_wei, held.unstaking_wei;
    UPDATE balances b
    SET available_wei = held.available_wei, reserved_wei = held.reserved_wei, staked_wei = held.staked_wei,
        unstaking_wei = held.unstaking_wei, last_movement_id = id, updated_at = created_at
    WHERE b.pool_id = new_pool_id AND b.user_id = new_user_id;
END $$;
