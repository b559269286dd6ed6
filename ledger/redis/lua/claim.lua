-- Creates a payment if its authorization is free.
-- KEYS: floor, payment, due, held, log, authorization, born, indexes...
-- ARGV: now, clock, id, value, open, check, hold, import (1: the ledger may be incomplete), payments' prefix, log, indexes
local refused = wrong()
if refused then return refused end
if ARGV[8] ~= '1' and incomplete() then return {'INCOMPLETE'} end
local had = redis.call('GET', KEYS[6])
if had and string.sub(had, 1, 1) == '~' then
  -- A payment that was forgotten: its claim stands until a time.
  if tonumber(string.sub(had, 2, 19)) > now then return {'FORGOTTEN', string.sub(had, 20)} end
  had = false
end
if had then return {'EXISTS', redis.call('GET', ARGV[9] .. had)} end
if redis.call('EXISTS', KEYS[2]) == 1 then return {'TAKEN'} end
redis.call('SET', KEYS[2], ARGV[4])
redis.call('SET', KEYS[6], ARGV[3])
redis.call('INCR', KEYS[7])
place(KEYS[3], KEYS[4], ARGV[3], ARGV[5], ARGV[6], ARGV[7])
index(log(KEYS[5], 10, ARGV[3]), ARGV[3])
return {'OK'}
