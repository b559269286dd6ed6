-- Gives all ids of a part, unless they are those that the caller knows.
-- KEYS: floor, born, lists...; ARGV: now, clock, what born was
-- Another server, or the same with another memory, counts something else.
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or ''
local born = (redis.call('GET', KEYS[2]) or '0') .. ' ' .. run
if born == ARGV[3] then return {'SAME'} end
local got = {}
for i = 3, #KEYS do
  for _, id in ipairs(redis.call('ZRANGE', KEYS[i], 0, -1)) do got[#got + 1] = id end
end
return {'OK', born, got}
