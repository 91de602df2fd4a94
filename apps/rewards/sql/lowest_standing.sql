-- `index_math.lowest_standing` as one statement over all positions of `pool_id`; NULL where none has weight.
-- Numeric div() is exact and cuts towards zero, so what is negative takes one more.
SELECT min(div(pending_scaled, weight) - CASE WHEN mod(pending_scaled, weight) < 0 THEN 1 ELSE 0 END - index_snapshot)
FROM (SELECT staked_wei::numeric + exiting_wei::numeric AS weight, index_snapshot::numeric AS index_snapshot,
             pending_scaled::numeric AS pending_scaled
      FROM reward_positions WHERE pool_id = :pool_id) p
WHERE weight > 0
