"""How agents agree on shared parameters: schemes, mailboxes, snapshots."""
