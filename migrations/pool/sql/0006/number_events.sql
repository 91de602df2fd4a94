-- Give up to `most` of the events that have no number yet their places in the feed; tells how many.
-- One caller numbers at a time: the counter's row is locked first, and what is without a number is looked for afterwards,
-- by a statement of its own, which sees all that was committed by then. So numbers have no gaps, and a number that was
-- seen is never followed by a smaller one that appears later. Events of one request come in the order of their ids, each
-- of which was drawn after the one before was committed.
CREATE FUNCTION number_events(most int) RETURNS int LANGUAGE plpgsql VOLATILE AS
$$
DECLARE
    last bigint;
    numbered int;
BEGIN
    IF NOT EXISTS (SELECT FROM unnumbered_events) THEN
        RETURN 0;
    END IF;
    SELECT last_sequence INTO last FROM feed_counter FOR UPDATE;
    WITH oldest AS (
        SELECT id FROM unnumbered_events ORDER BY id LIMIT most
    ), taken AS (
        DELETE FROM unnumbered_events u USING oldest WHERE u.id = oldest.id RETURNING u.*
    )
    INSERT INTO request_events (sequence, request_id, status, reason, amount_wei, settled_wei, batch_id, created_at)
    SELECT last + row_number() OVER (ORDER BY id), request_id, status, reason, amount_wei, settled_wei, batch_id, created_at
    FROM taken;
    GET DIAGNOSTICS numbered = ROW_COUNT;
    UPDATE feed_counter SET last_sequence = last + numbered;
    RETURN numbered;
END $$;
