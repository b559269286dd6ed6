-- Reads a payment. KEYS: floor, payment
return {'OK', {redis.call('GET', KEYS[2]) or ''}}
