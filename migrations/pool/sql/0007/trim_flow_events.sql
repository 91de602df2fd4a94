-- Look at the next `most` events after the one named, and remove those of flows that ended `days` ago or longer. The newest
-- event stays whatever it is of: by it a sweep knows that a clock was set back.
CREATE FUNCTION trim_flow_events(days int, after_id bigint, most int, OUT looked int, OUT removed int, OUT last_id bigint)
LANGUAGE plpgsql VOLATILE AS
$$
BEGIN
    IF days < 30 THEN
        RAISE EXCEPTION 'History is kept for thirty days at least' USING ERRCODE = '22023';
    END IF;
    PERFORM set_config('staking.trims_history', 'on', true);
    WITH next AS (
        SELECT e.id, e.subject, e.subject_id FROM flow_events e WHERE e.id > after_id ORDER BY e.id LIMIT most
    ), ended AS (
        SELECT f.subject, f.subject_id FROM (SELECT DISTINCT n.subject, n.subject_id FROM next n) f
        WHERE flow_is_over(f.subject, f.subject_id, now() - make_interval(days => days))
    ), gone AS (
        DELETE FROM flow_events e USING next n JOIN ended o USING (subject, subject_id)
        WHERE e.id = n.id AND e.id < (SELECT max(id) FROM flow_events) RETURNING e.id
    )
    SELECT (SELECT count(*) FROM next), (SELECT count(*) FROM gone), (SELECT max(id) FROM next)
    INTO looked, removed, last_id;
    PERFORM set_config('staking.trims_history', '', true);
END $$;
