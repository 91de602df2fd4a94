-- `index_math.claim` for the next `most` positions of `pool_id` after the user `after`, at `index`, each with a `settle` event
-- that is named `prefix` and a number above `events`; `p` is the scale 10^36. Numeric div() cuts towards zero, so a negative
-- rest takes one more. `seen` are the positions looked at, `last` the user of the last one.
WITH due AS (
    SELECT user_id, staked_wei AS staked, exiting_wei AS exiting,
           pending_scaled + (staked_wei + exiting_wei) * (CAST(:index AS numeric) - index_snapshot) AS owed
    FROM reward_positions WHERE pool_id = :pool_id AND user_id > :after ORDER BY user_id LIMIT :most FOR UPDATE
), floored AS (
    SELECT *, div(owed, :p) - CASE WHEN mod(owed, :p) < 0 THEN 1 ELSE 0 END AS whole FROM due
), moved AS (
    SELECT *, owed - whole * :p AS fraction, greatest(whole, -staked) AS staked_delta,
           staked + exiting + whole = 0 AS emptied
    FROM floored WHERE whole <> 0
), settled AS (
    UPDATE reward_positions p
    SET staked_wei = m.staked + m.staked_delta,
        exiting_wei = m.exiting + m.whole - m.staked_delta,
        claimed_wei = p.claimed_wei + m.whole,
        pending_scaled = CASE WHEN m.emptied THEN 0 ELSE m.fraction END,
        index_snapshot = :index,
        updated_at = clock_timestamp()
    FROM moved m WHERE p.pool_id = :pool_id AND p.user_id = m.user_id
), logged AS (
    INSERT INTO reward_events
        (pool_id, kind, message_id, user_id, staked_delta_wei, exiting_delta_wei, claimed_wei, acc_reward_per_share)
    SELECT :pool_id, 'settle', :prefix || (:events + row_number() OVER (ORDER BY user_id)), user_id,
           staked_delta, whole - staked_delta, whole, :index
    FROM moved ORDER BY user_id
)
SELECT count(*) AS events, coalesce(sum(whole), 0) AS claimed,
       coalesce(sum(fraction) FILTER (WHERE emptied), 0) AS returned_scaled,
       (SELECT count(*) FROM due) AS seen, (SELECT max(user_id) FROM due) AS last
FROM moved
