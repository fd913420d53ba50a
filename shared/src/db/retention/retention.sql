-- retention: for how many days payloads, keys and money are kept; NULL: for ever.
SELECT r.payload_days, r.key_days, r.money_days FROM punchcard.retention r
