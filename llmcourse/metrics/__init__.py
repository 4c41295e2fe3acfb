"""What we MEASURE: per-request records, hardware, roofline arithmetic (weeks 2 and 3). No torch."""
