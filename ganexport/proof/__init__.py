"""Is what ships what was trained?"""
