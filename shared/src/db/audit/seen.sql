-- seen: whether whoever asks, and the functions, see every row (I0).
SELECT i.finding FROM punchcard.audit_i0 i
