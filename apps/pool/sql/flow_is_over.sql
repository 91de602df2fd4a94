-- Whether a flow ended before `moment`; a walk never ends. What is not known is not over.
CREATE FUNCTION flow_is_over(flow_subject text, flow_id text, moment timestamptz) RETURNS boolean LANGUAGE sql STABLE AS
$$
    SELECT CASE flow_subject
        WHEN 'request' THEN EXISTS (
            SELECT FROM requests r WHERE r.id = flow_id AND r.updated_at < moment
            AND r.status IN ('completed', 'rejected', 'cancelled', 'failed'))
        WHEN 'batch' THEN EXISTS (
            SELECT FROM batches b WHERE b.id = flow_id AND b.updated_at < moment AND b.status IN ('completed', 'failed'))
        ELSE false END
$$;
