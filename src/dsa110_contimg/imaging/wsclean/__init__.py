"""WSClean, on the host or in a long-running container, behind one protocol.

The Measurement Set is only read: WSClean works on reordered copies of the visibilities in a folder of its
own, never in MODEL_DATA, and it is checked afterwards that no file of the Measurement Set has changed.
"""
