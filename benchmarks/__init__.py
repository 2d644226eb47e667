import official as official  # before TensorFlow
