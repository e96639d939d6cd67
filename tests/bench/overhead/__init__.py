"""What the gateway costs, beside a bare floor: ``python -m tests.bench.overhead``; ``run`` says how it is measured."""
