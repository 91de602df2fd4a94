-- The guard of the flows' history: nothing is changed, and nothing removed but by `trim_flow_events`, which says so for its
-- own transaction. Even then only history of a flow that ended thirty days ago or more.
CREATE FUNCTION keep_history() RETURNS trigger LANGUAGE plpgsql AS
$$
BEGIN
    IF TG_OP <> 'DELETE' OR current_setting('staking.trims_history', true) IS DISTINCT FROM 'on' THEN
        RAISE EXCEPTION '% of % is refused: it is kept as it was written', TG_OP, TG_TABLE_NAME USING ERRCODE = 'AO001';
    END IF;
    IF TG_LEVEL = 'ROW' AND NOT flow_is_over(OLD.subject, OLD.subject_id, now() - interval '30 days') THEN
        RAISE EXCEPTION 'The history of % % is kept: it has not ended long ago', OLD.subject, OLD.subject_id
            USING ERRCODE = 'AO001';
    END IF;
    IF TG_LEVEL = 'ROW' THEN
        RETURN OLD;
    END IF;
    RETURN NULL;
END $$;
