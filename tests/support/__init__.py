"""What tests of several packages share: running services, receivers, images, weights, jobs."""
