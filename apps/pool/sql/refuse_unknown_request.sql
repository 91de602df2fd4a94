-- The guard of the events' requests: an event of a request that there is none of is refused, as a foreign key would, but by one
-- look for all that a statement inserts, and under session_replication_role = replica too. Requests themselves are never
-- deleted (guard `kept`), so what was there once stays there.
CREATE FUNCTION refuse_unknown_request() RETURNS trigger LANGUAGE plpgsql AS
$$
DECLARE
    unknown text;
BEGIN
    SELECT m.request_id INTO unknown FROM made m WHERE NOT EXISTS (SELECT FROM requests r WHERE r.id = m.request_id) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '% tells of request %, which there is none of', TG_TABLE_NAME, unknown
            USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'known_request', TABLE = TG_TABLE_NAME;
    END IF;
    RETURN NULL;
END $$;
