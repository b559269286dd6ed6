-- Gives objects by id: id and value of each. MORE says that there may be others after the last id, which comes with it.
-- KEYS: floor, list; ARGV: now, clock, objects' prefix, after, limit
local got, left, size, looked, last = {}, tonumber(ARGV[5]), 0, 0, ARGV[4]
while true do
  local ids = redis.call('ZRANGE', KEYS[2], last == '' and '-' or '(' .. last, '+', 'BYLEX', 'LIMIT', 0, 100)
  for _, id in ipairs(ids) do
    if left == 0 or size > 1048576 or looked == 5000 then return {'MORE', got, last} end
    last, looked = id, looked + 1
    local v = redis.call('GET', ARGV[3] .. id)
    if v and lives(v) then
      got[#got + 1] = id
      got[#got + 1] = v
      left, size = left - 1, size + #v
    end
  end
  if #ids < 100 then return {'OK', got} end
end
