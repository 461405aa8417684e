"""Networks: 2-D backbones with slots, layers placed into them, and the classifier over frames around them."""
