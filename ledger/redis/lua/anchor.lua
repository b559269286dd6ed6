-- Appends an anchor if it is the next. KEYS: floor, anchors; ARGV: now, clock, sequence, anchor with its token before it
local n = redis.call('LLEN', KEYS[2])
if n + 1 == tonumber(ARGV[3]) then
  redis.call('RPUSH', KEYS[2], ARGV[4])
  return {'OK'}
end
if redis.call('LINDEX', KEYS[2], tonumber(ARGV[3]) - 1) == ARGV[4] then return {'OK'} end
return {'CHANGED'}
