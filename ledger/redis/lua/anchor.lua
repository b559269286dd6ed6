-- Appends an anchor if it is the next. KEYS: floor, anchors, state of the copy
-- ARGV: now, clock, sequence, anchor with its token before it, import (1: the ledger may be incomplete)
if ARGV[5] ~= '1' and redis.call('EXISTS', KEYS[3]) == 1 then return {'INCOMPLETE'} end
local n = redis.call('LLEN', KEYS[2])
if n + 1 == tonumber(ARGV[3]) then
  redis.call('RPUSH', KEYS[2], ARGV[4])
  return {'OK'}
end
if redis.call('LINDEX', KEYS[2], tonumber(ARGV[3]) - 1) == ARGV[4] then return {'OK'} end
return {'CHANGED'}
