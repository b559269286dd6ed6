-- Changes a payment if it is in a version and bears a mark; the mark goes.
-- KEYS: floor, payment, due, held, log, marked, indexes...
-- ARGV: now, clock, id, version, mark, new check ('': as it is), new version, body, entries, open, hold, log, indexes
local refused = wrong()
if refused then return refused end
if incomplete() then return {'INCOMPLETE'} end
local v = redis.call('GET', KEYS[2])
if not v then return {'GONE'} end
if string.sub(v, 1, 8) ~= ARGV[4] or mark(v) ~= ARGV[5] then return {'CHANGED', v} end
local check = ARGV[6]
if check == '' then check = string.sub(v, 9, 26) end
redis.call('SET', KEYS[2], compose(ARGV[7], check, '', ARGV[8], trail(v) .. ARGV[9]))
if ARGV[5] ~= '' then redis.call('SREM', KEYS[6], ARGV[3]) end
place(KEYS[3], KEYS[4], ARGV[3], ARGV[10], check, ARGV[11])
index(log(KEYS[5], 12, ARGV[3]), ARGV[3])
return {'OK'}
