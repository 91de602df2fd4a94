-- `index_math.standing` of the `most` positions of `pool_id` that have weight and can bear least, least first. Numeric div() is
-- exact and cuts towards zero, so what is negative takes one more.
SELECT user_id, div(pending_scaled, weight) - CASE WHEN mod(pending_scaled, weight) < 0 THEN 1 ELSE 0 END - index_snapshot
           AS standing
FROM (SELECT user_id, staked_wei::numeric + exiting_wei::numeric AS weight, index_snapshot::numeric AS index_snapshot,
             pending_scaled::numeric AS pending_scaled
      FROM reward_positions WHERE pool_id = :pool_id) p
WHERE weight > 0 ORDER BY standing LIMIT :most
