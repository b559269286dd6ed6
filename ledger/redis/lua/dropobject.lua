-- Removes an object. KEYS: floor, object; ARGV: now, clock, kind, id, version
local refused = wrong()
if refused then return refused end
if incomplete() then return {'INCOMPLETE'} end
local v = redis.call('GET', KEYS[2])
if not v then return {'OK'} end
if lives(v) and string.sub(v, 9, 27) ~= ARGV[5] then return {'CHANGED'} end
redis.call('DEL', KEYS[2])
unlist(ARGV[3], ARGV[4], v)
return {'OK'}
