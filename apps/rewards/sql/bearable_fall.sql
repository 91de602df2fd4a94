-- `index_math.bearable_fall` as one statement over all positions of `pool_id`, at `index`; `p` is the scale 10^36.
-- Numeric div() is exact and cuts towards zero: the floor of what is not negative.
SELECT coalesce(min(div(greatest(0, weight * (:p + CAST(:index AS numeric) - index_snapshot) + pending_scaled),
                        weight)), 0)
FROM (SELECT staked_wei + exiting_wei AS weight, index_snapshot, pending_scaled
      FROM reward_positions WHERE pool_id = :pool_id) p
WHERE weight > 0
