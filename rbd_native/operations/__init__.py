"""What is done to images and pools as a whole: one verb a module, each a coroutine over the RADOS port."""
