"""What a run achieved: sample every policy on the test split (`generate`), measure (`measure`), gather (`collect`), tell (`report`)."""
