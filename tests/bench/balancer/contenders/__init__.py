"""What is compared: the balancer and its peers, each as it comes and as an expert would tune it."""
