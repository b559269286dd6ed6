-- Takes a token back. KEYS: floor, numbers, ends, state of the copy, last number
-- ARGV: now, clock, id, end, import (1: the ledger may be incomplete)
if ARGV[5] ~= '1' and redis.call('EXISTS', KEYS[4]) == 1 then return {'INCOMPLETE'} end
local had = redis.call('ZSCORE', KEYS[3], ARGV[3])
if had then
  if tonumber(had) == tonumber(ARGV[4]) then return {'OK'} end
  if ARGV[5] == '1' then return {'CHANGED'} end
  if tonumber(had) > tonumber(ARGV[4]) then return {'OK'} end
end
redis.call('ZADD', KEYS[2], redis.call('INCR', KEYS[5]), ARGV[3])
redis.call('ZADD', KEYS[3], ARGV[4], ARGV[3])
return {'OK'}
