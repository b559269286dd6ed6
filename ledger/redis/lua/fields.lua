-- Reads fields of a hash. KEYS: floor, hash; ARGV: now, clock, fields...
local got = {}
for i = 3, #ARGV do got[i - 2] = redis.call('HGET', KEYS[2], ARGV[i]) or '' end
return {'OK', got}
