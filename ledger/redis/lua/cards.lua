-- Counts the members of several lists at one moment.
local got = {}
for i = 2, #KEYS do got[#got + 1] = redis.call('ZCARD', KEYS[i]) end
return {'OK', got}
