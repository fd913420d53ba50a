-- set_local: whether a setting of one transaction is honoured in it, whatever pooler is between.
BEGIN; SET LOCAL statement_timeout = '1234ms'; SELECT current_setting('statement_timeout'); ROLLBACK
