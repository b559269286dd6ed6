-- Sets a key if it is as expected; where nothing is expected, further keys must not be there.
-- KEYS: floor, key, others...; ARGV: now, clock, expected, new
local had = redis.call('GET', KEYS[2]) or ''
if had ~= ARGV[3] and had ~= ARGV[4] then return {'CHANGED'} end
if had == '' then
  for i = 3, #KEYS do
    if redis.call('EXISTS', KEYS[i]) == 1 then return {'EXISTS'} end
  end
end
redis.call('SET', KEYS[2], ARGV[4])
return {'OK'}
