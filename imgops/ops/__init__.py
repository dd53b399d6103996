"""The ops: validation, schema, fake, autograd and the public function of each, one file per op."""
