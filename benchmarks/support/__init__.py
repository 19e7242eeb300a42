"""What benchmarks and tests share: servers and stores that the product does not start by itself."""
