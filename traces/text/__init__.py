"""Chat messages as others write them, and the turns that they make.

`parts`: one message, or what stands beside the messages of a record -> `Message`. `conversation`: messages -> turns. `chats`: whole files.
"""
