-- drop_source: from now on credits come from grants alone; what is held stays held.
DELETE FROM punchcard.credit_source WHERE only_one
