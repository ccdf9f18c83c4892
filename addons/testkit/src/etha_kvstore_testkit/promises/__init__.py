"""The promises of the store contract, by subject: each module is one class of tests, read at one sitting."""
